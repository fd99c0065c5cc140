//go:build darwin || freebsd

package throwaway

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent does nothing: the watchdog alone ends the server when we die.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// isPostmaster reports whether the process runs on that data directory.
func isPostmaster(pid int, data string) bool {
	out, err := exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output() //nolint:noctx // it is quick
	return err == nil && strings.Contains(string(out), "-D "+data+" ")
}
