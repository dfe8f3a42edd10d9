"""Tests of what spans all hosts of a cluster, in labs."""
