"""`cnictl cluster` over a real sshd on each lab node. Root only: sshd changes its user, which takes a range of them."""
