"""List all faults: known faults of the reference, each with a row, and faults that any plugin must handle."""

from tests.parity import faults_add, faults_check, faults_collect, faults_del, faults_store

FAULTS = (*faults_add.FAULTS, *faults_store.FAULTS, *faults_check.FAULTS, *faults_del.FAULTS, *faults_collect.FAULTS)
