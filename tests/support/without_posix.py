"""python without_posix.py PROGRAM [ARGUMENTS]: a program without what native Windows lacks, but for
what numpy and Paddle themselves use on Linux.
"""

import os
import runpy
import shutil
import signal
import sys

MODULES = "fcntl grp pwd resource termios".split()
OF_OS = "O_NONBLOCK geteuid getuid mkfifo pread pwrite sched_getaffinity statvfs".split()
OF_SIGNAL = "SIGALRM SIGBUS SIGHUP SIGUSR1 SIGUSR2 alarm pthread_sigmask setitimer".split()

if __name__ == "__main__":
    # Windows has one of its own, without os.statvfs
    free = shutil.disk_usage(os.getcwd())
    shutil.disk_usage = lambda path: free
    sys.modules.update(dict.fromkeys(MODULES))
    for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
