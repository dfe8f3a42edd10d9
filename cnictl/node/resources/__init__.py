"""The kinds of host state that cnictl is responsible for, one file each."""
