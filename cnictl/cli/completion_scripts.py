"""The completion scripts of bash, zsh and fish. Each asks this program for the words (`completion`)."""

BASH = """\
# bash completion of cnictl, from: cnictl completion bash
_cnictl() {
    local IFS=$'\\n' words status_of files
    words=$(env _CNICTL_COMPLETE=complete_bash COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" "$1" 2>/dev/null)
    status_of=$?
    case $status_of in
        0) ;;
        4) compopt -o dirnames 2>/dev/null ;;
        *) compopt -o default 2>/dev/null ;;
    esac
    COMPREPLY=()
    [ -z "$words" ] || mapfile -t COMPREPLY <<<"$words"
    # bash offers files only if there is no word
    if [ "$status_of" = 3 ] && [ -n "$words" ]; then
        mapfile -t files < <(compgen -f -- "$2")
        COMPREPLY+=("${files[@]}")
        compopt -o filenames 2>/dev/null
    fi
    case ${COMPREPLY[0]-} in
        *=) compopt -o nospace 2>/dev/null ;;
    esac
}
complete -F _cnictl cnictl
"""
ZSH = """\
#compdef cnictl
# zsh completion of cnictl, from: cnictl completion zsh
_cnictl() {
    local words_text status_of
    local -a lines
    words_text=$(env _CNICTL_COMPLETE=words_zsh COMP_WORDS="${(F)words[1,CURRENT]}" COMP_CWORD=$((CURRENT - 1)) \\
        ${words[1]} 2>/dev/null)
    status_of=$?
    if [[ -n $words_text ]]; then
        lines=("${(@f)words_text}")
        lines=("${(@)lines//:/\\\\:}")
        lines=("${(@)lines/$'\\t'/:}")
        lines=("${(@)lines%:}")
        _describe -V -t words cnictl lines
    fi
    case $status_of in
        0) ;;
        4) _files -/ ;;
        *) _files ;;
    esac
}
if [[ $funcstack[1] = _cnictl ]]; then
    _cnictl "$@"
else
    compdef _cnictl cnictl
fi
"""
FISH = """\
# fish completion of cnictl, from: cnictl completion fish
function __cnictl_words
    set -l begun (commandline -ct)
    set -l typed (commandline -opc) "$begun"
    env _CNICTL_COMPLETE=words_fish COMP_CWORD=(math (count $typed) - 1) \\
        COMP_WORDS=(string join \\n -- $typed | string collect) $typed[1] 2>/dev/null
end
complete --command cnictl --no-files --arguments '(__cnictl_words)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""The completion script of each shell."""
