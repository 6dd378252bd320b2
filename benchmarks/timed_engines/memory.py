"""What a process holds."""


def peak_memory():
    """The most memory that this process has held, in MB. Not getrusage's, which begins with that of
    the process that started this one.
    """
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
