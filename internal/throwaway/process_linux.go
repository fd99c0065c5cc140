package throwaway

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"syscall"
)

// dieWithParent makes the kernel send the signal to the child when we die,
// however we die.
func dieWithParent(a *syscall.SysProcAttr, signal syscall.Signal) { a.Pdeathsig = signal }

// isPostmaster reports whether the process runs on that data directory. A
// zombie does not: it has no command line any more.
func isPostmaster(pid int, data string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := bytes.Split(line, []byte{0})
	i := slices.IndexFunc(args, func(arg []byte) bool { return string(arg) == "-D" })
	return i >= 0 && i+1 < len(args) && string(args[i+1]) == data
}
