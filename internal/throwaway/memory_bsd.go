//go:build darwin || freebsd

package throwaway

// memoryDir returns nothing: these systems have no such directory.
func memoryDir() string { return "" }
