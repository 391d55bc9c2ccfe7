"""Choose the device, keep rare weights on the host, and copy between both through page-locked memory."""
