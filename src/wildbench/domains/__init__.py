"""Domains of tasks besides photographs, each measured by one command and with one table."""
