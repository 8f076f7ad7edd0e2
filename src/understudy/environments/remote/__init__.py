"""Environments on other machines: a server that holds one environment for each episode, and a client that is one."""
