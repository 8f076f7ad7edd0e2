"""How a step is spread over devices: one file for each way, all behind `Engine`."""
