package report

import (
	"crypto/sha256"
	_ "embed" // the template and its style
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"sync"

	"github.com/mvsched/mvsched/schedule"
)

// PageOptions are what a page needs beside the snapshot.
type PageOptions struct {
	Database string // whose views they are, for the title; "" leaves it out
	Live     bool   // the page asks for live.js beside it, which replaces <main id="mvsched">
}

// WritePage writes a whole page of HTML that needs nothing but itself; a live one needs live.js. Nothing in it is a script,
// and its style is allowed by PageStyleSource.
func WritePage(w io.Writer, snap schedule.Snapshot, opts PageOptions) error {
	t, err := parsePage()
	if err != nil {
		return fmt.Errorf("reading the page's template: %w", err)
	}
	for _, thrift := range thrifts() {
		var buf limitedBuffer
		err = t.ExecuteTemplate(&buf, "page", newPage(snap, opts, thrift))
		if err == nil {
			_, err = w.Write(buf.Bytes())
			return err
		}
		if !errors.Is(err, errTooLarge) {
			break
		}
	}
	return fmt.Errorf("writing the page: %w", err)
}

// PageStyleSource is what a Content-Security-Policy has to allow as style-src for the page: 'sha256-…'.
func PageStyleSource() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

var (
	//go:embed page/page.html
	pageText string

	//go:embed page/style.css
	pageStyle string
)

// parsePage reads the template when the first page is written: other commands have no use for it.
var parsePage = sync.OnceValues(func() (*template.Template, error) {
	return template.New("page").Parse(pageText)
})
