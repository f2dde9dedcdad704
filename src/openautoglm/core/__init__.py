"""Ground floor: errors, values, files, log, progress, hardware, plug-ins. Imports nothing of ours."""
