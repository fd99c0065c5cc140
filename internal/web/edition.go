package web

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"html"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// edition is what one look at the database has brought, in all its forms, each of which is rendered once.
type edition struct {
	taken time.Time          // by our clock
	snap  *schedule.Snapshot // where err is not nil the last one that could be had, or nil
	err   error

	forms map[string]func() (page, error) // by path
	event func() (frame, error)           // the content of the page
}

// frame is an event as it goes over the line.
type frame struct{ plain, deflated []byte }

// page is what answers a request.
type page struct {
	plain  []byte
	zipped func() ([]byte, error) // of thousands of views a tenth
}

func newPage(plain []byte) page {
	return page{plain, sync.OnceValues(func() ([]byte, error) {
		var buf bytes.Buffer
		w, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
		if err == nil {
			_, err = w.Write(plain)
		}
		if err == nil {
			err = w.Close()
		}
		return buf.Bytes(), err
	})}
}

// form is one way to show a snapshot.
type form struct {
	contentType string
	write       func(w io.Writer, snap schedule.Snapshot) error
	old         bool // may be shown when it is old: it says so, and brings itself up to date
}

func forms(opts report.PageOptions) map[string]form {
	text := func(format report.Format, write func(report.Printer, schedule.Snapshot) error) func(io.Writer, schedule.Snapshot) error {
		return func(w io.Writer, snap schedule.Snapshot) error { // cleaned as the command line's stdout is
			return write(report.Printer{W: report.NewCleanWriter(w), Format: format}, snap)
		}
	}
	status := func(p report.Printer, snap schedule.Snapshot) error { return p.Status(snap.Standings) }
	metrics := func(p report.Printer, snap schedule.Snapshot) error {
		return p.Metrics(snap.Standings, snap.Activity())
	}
	history := func(p report.Printer, snap schedule.Snapshot) error { return p.Executions(snap.Recent, false) }
	return map[string]form{
		pathPage: {"text/html; charset=utf-8", func(w io.Writer, snap schedule.Snapshot) error {
			return report.WritePage(w, snap, opts)
		}, true},
		"/metrics":     {"text/plain; version=0.0.4; charset=utf-8", text(report.Prometheus, metrics), false},
		pathBadge:      {"image/svg+xml", text(report.BadgeSVG, status), false},
		"/api/status":  {"application/json", text(report.JSON, status), false},
		"/api/history": {"application/json", text(report.JSON, history), false},
	}
}

// render prepares the forms of an edition.
func (s *Server) render(ed *edition) {
	ed.forms = map[string]func() (page, error){}
	for path, form := range s.forms {
		ed.forms[path] = sync.OnceValues(func() (page, error) {
			if ed.snap == nil || ed.err != nil && !form.old {
				return page{}, errNotNow
			}
			var buf bytes.Buffer
			if err := form.write(&buf, *ed.snap); err != nil {
				return page{}, err
			}
			if notice := ed.notice(); notice != "" {
				return newPage(withNotice(buf.Bytes(), notice)), nil
			}
			return newPage(buf.Bytes()), nil
		})
	}
	ed.event = sync.OnceValues(func() (frame, error) {
		var buf bytes.Buffer
		writeEvent(&buf, "notice", ed.notice())
		if ed.err == nil {
			whole, err := ed.forms[pathPage]() // of thousands of views it takes a quarter of a second: once for both
			if err != nil {
				return frame{}, err
			}
			writeEvent(&buf, "body", string(content(whole.plain)))
		}
		return newFrame(buf.Bytes())
	})
}

var errNotNow = errors.New("the database does not answer")

// notice is what a person has to know of an edition, "" for nothing.
func (ed *edition) notice() string {
	switch {
	case ed.err == nil:
		return ""
	case ed.snap == nil:
		return trouble(ed.err) + "."
	default:
		return fmt.Sprintf("%s. What stands here is old: as of %s UTC.", trouble(ed.err), ed.snap.At.UTC().Format(time.DateTime))
	}
}

// trouble is an error in words for everybody: the error itself may say more of the connection than a reader should know.
func trouble(err error) string {
	var version *schedule.SchemaVersionError
	switch {
	case errors.Is(err, schedule.ErrNoSchema):
		return "Schema mvsched is not installed in the database"
	case errors.As(err, &version):
		return "Schema mvsched is of a version that this program does not know"
	default:
		return "The database does not answer"
	}
}

// content is the part of the page that changes, <main id="mvsched">…</main>: nothing else in it can look like its ends.
func content(page []byte) []byte {
	const end = "</main>"
	return page[contentAt(page) : bytes.LastIndex(page, []byte(end))+len(end)]
}

func contentAt(page []byte) int { return max(bytes.Index(page, []byte(`<main id="mvsched"`)), 0) }

// withNotice puts a notice before the page's content.
func withNotice(page []byte, notice string) []byte {
	paragraph := `<p id="mvsched-notice" role="status">` + html.EscapeString(notice) + "</p>\n"
	at := contentAt(page)
	return bytes.Join([][]byte{page[:at], []byte(paragraph), page[at:]}, nil)
}

// writeEvent writes a server-sent event: of its data each line by itself, whatever ends it.
func writeEvent(buf *bytes.Buffer, name, data string) {
	fmt.Fprintf(buf, "event: %s\n", name)
	data = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data)
	for line := range strings.SplitSeq(strings.TrimSuffix(data, "\n"), "\n") {
		fmt.Fprintf(buf, "data: %s\n", line)
	}
	buf.WriteByte('\n')
}

// newFrame compresses an event once for all readers: behind a gzip header (of each reader's stream, which never ends),
// blocks that refer to nothing before them follow one another.
func newFrame(plain []byte) (frame, error) {
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Flush()
	}
	return frame{plain, buf.Bytes()}, err
}

const gzipHeader = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
