"""The commands on stores, one file each."""
