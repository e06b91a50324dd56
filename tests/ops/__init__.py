"""Tests of cnnkern.ops: a package, so that file names may recur in other folders."""
