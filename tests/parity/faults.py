"""The fixed list of faults: those that the reference is known to have, each a row, and those that any plugin meets."""

from tests.parity import faults_add, faults_check, faults_collect, faults_del, faults_store

FAULTS = (*faults_add.FAULTS, *faults_store.FAULTS, *faults_check.FAULTS, *faults_del.FAULTS, *faults_collect.FAULTS)
