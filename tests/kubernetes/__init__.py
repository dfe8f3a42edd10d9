"""The Kubernetes source of peers, against a server of the project's own or a real one (CNICTL_TEST_KUBECONFIG)."""
