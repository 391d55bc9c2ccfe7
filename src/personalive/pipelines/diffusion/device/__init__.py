"""The device: its choice, weights that wait on the host, and copies between both through page-locked memory."""
