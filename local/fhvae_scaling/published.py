"""What Hsu and Glass (2018) publish, to stand beside what is measured here; their machine was another one."""

STEP_MS = {10: 84, 100: 84, 1000: 86, 2000: 87, 5000: 103, 10000: 147, 20000: 230}  # table 2, by K
