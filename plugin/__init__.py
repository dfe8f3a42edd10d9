"""The CNI executable `cnictl-bridge`: environment, verbs, launcher. Installed as `cnictl_plugin`."""
