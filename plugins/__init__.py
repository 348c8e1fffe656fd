"""What a kernel can be given: functions, model providers, planners. Ours come the way anybody's do."""
