"""Test the Kubernetes source of peers against the tests' own server or a real one (CNICTL_TEST_KUBECONFIG)."""
