"""Keep root's copy of cnictl, which the units start, as one resource: the version in use, and the previous one."""

import cnictl
from cnictl.core.errors import Problem
from cnictl.node.plugin import files, interpreters, program, version_folder
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

_UNKNOWN = "unknown"


class ProgramCopy:
    """The copy, if systemd runs; without units nothing would start it."""

    id = "program/cnictl"

    def __init__(self, needed: bool) -> None:
        """`needed`: whether this host has units that start the copy."""
        self._needed = needed

    def observe(self) -> State | None:
        """Return the version that the units start, and the digest of its files; None if there is no copy."""
        name = program.current()
        if not name and not version_folder.names(program.HOME):
            return None
        copy = program.examine(name) if name else None
        return {
            "version": name,
            "digest": copy.digest if copy else "",
            "interpreter": copy.interpreter if copy else "",
            "folder": program.HOME,
        }

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - one copy serves every network
        """Return the present copy, whatever its version, if it is intact; else a copy of the running cnictl."""
        now = self.observe()
        if not self._needed or (now is not None and now["digest"]) or not files.can_write(f"{program.HOME}/new"):
            return now
        try:
            return self.with_own_version()
        except Problem:
            if now is None:
                raise
            return {**now, "digest": _UNKNOWN}  # carrying out the step reports why the copy can't be made

    def with_own_version(self) -> State:
        """Return the state with a copy of the running cnictl. The previous copy stays."""
        digest = program.digest_of(program.sources())
        name = version_folder.name_for(program.HOME, digest)
        copy = program.examine(name)
        interpreter = copy.interpreter if copy.digest == digest else interpreters.choose().path
        return {"version": name, "digest": digest, "interpreter": interpreter, "folder": program.HOME}

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:  # noqa: ARG002
        """Return the summary and the manual command."""
        if after is None:
            return "remove the copy of cnictl that the units start", f"rm -r {program.HOME}"
        name = after["version"]
        link = f"ln -sfn {name} {program.CURRENT}"
        if program.examine(name).digest == after["digest"]:
            return f"have the units start cnictl {name}", link
        site = f"{program.HOME}/{name}/site"
        install = f"pip install --target {site} cnictl=={cnictl.__version__}"
        return f"copy cnictl {name} to {program.HOME} for the units", f"{install}\n{link}"

    def carry_out(self, change: Change) -> None:
        """Copy, switch or remove. Raises Problem, with the copy in use unchanged.

        The previous copy is kept; older ones are removed.
        """
        before, after = change.before, change.after
        if after is None:
            program.remove_all()
            return
        name = after["version"]
        if after["digest"]:  # else the copy was broken, and is not restored
            if program.examine(name).digest != after["digest"]:
                sources = program.sources()
                if program.digest_of(sources) != after["digest"]:
                    raise Problem(f"{program.HOME}/{name} is gone or damaged", "run: cnictl plugin install")
                program.build(name, sources, interpreters.inspect(after["interpreter"]))
            if program.current() != name:
                version_folder.point(program.CURRENT, name)
        previous = before["version"] if before else ""
        for other in version_folder.names(program.HOME):
            if previous != name and other not in (name, previous):
                version_folder.remove(program.HOME, other)
