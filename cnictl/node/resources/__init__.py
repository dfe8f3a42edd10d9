"""One file a kind of host state that cnictl is responsible for."""
