"""Measurements of the whole path on this machine; `watchword bench` prints them."""
