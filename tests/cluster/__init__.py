"""Test `cnictl cluster`, which acts on all hosts of a cluster, in labs."""
