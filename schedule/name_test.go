package schedule_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestParseViewName(t *testing.T) {
	long := strings.Repeat("x", 63)
	for in, want := range map[string]schedule.ViewName{
		"venue_view":                 {Name: "venue_view"},
		"cinema.venue_view":          {Schema: "cinema", Name: "venue_view"},
		" Cinema . Venue_View\t":     {Schema: "cinema", Name: "venue_view"},
		`"Foo"`:                      {Name: "Foo"},
		"FOO":                        {Name: "foo"},
		`"a.b"."c d"`:                {Schema: "a.b", Name: "c d"},
		`"Sales 2026"."By Day"`:      {Schema: "Sales 2026", Name: "By Day"},
		`"say ""hi"""`:               {Name: `say "hi"`},
		"sélect":                     {Name: "sélect"},
		"ÄÖ":                         {Name: "ÄÖ"},
		"v$1":                        {Name: "v$1"},
		"\"a\x1b[2Jb\"":              {Name: "a\x1b[2Jb"},
		long:                         {Name: long},
		`"` + long + `".` + long:     {Schema: long, Name: long},
		`"x; drop table y; --"`:      {Name: "x; drop table y; --"},
		`"*/ '' \"`:                  {Name: `*/ '' \`},
		`"` + "new\nline" + `".view`: {Schema: "new\nline", Name: "view"},
	} {
		got, err := schedule.ParseViewName(in)
		if err != nil || got != want {
			t.Errorf("ParseViewName(%q) = %#v, %v; want %#v", in, got, err, want)
		}
	}

	for _, in := range []string{
		"", " ", `"`, `""`, `"a`, `a"b`, `"a"b`, ".", "a.", ".a", "a..b", "a.b.c", `x"; drop table y; --`, "x; drop table y",
		"a b", "a-b", "1a", "$a", "a,b", "--", "/*", "a\x00b", "\"a\x00b\"", "a\xffb", strings.Repeat("x", 64),
		`"` + strings.Repeat("é", 32) + `"`, "a.b\n;", `U&"\0061"`, "a\u00a0b.c d",
	} {
		got, err := schedule.ParseViewName(in)
		var invalid *schedule.InvalidError
		if !errors.As(err, &invalid) || got != (schedule.ViewName{}) {
			t.Errorf("ParseViewName(%q) = %#v, %v; want an InvalidError and nothing else", in, got, err)
		}
	}
}

// The law: what is taken reads back as the same name, fits PostgreSQL's limit, and quotes without loss; what is not
// taken leaves nothing.
func FuzzParseViewName(f *testing.F) {
	for _, s := range []string{
		"venue_view", `"a.b"."c d"`, `x"; drop table y; --`, `"""`, "a\x00", "Ä", `"\x1b"`, strings.Repeat("x", 64), " a . b ",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := schedule.ParseViewName(s)
		if err != nil {
			if name != (schedule.ViewName{}) {
				t.Fatalf("%q: error %v and the name %#v", s, err, name)
			}
			return
		}
		if name.Name == "" || len(name.Name) > 63 || len(name.Schema) > 63 {
			t.Fatalf("%q: %#v", s, name)
		}
		if !utf8.ValidString(name.Name) || strings.ContainsRune(name.Name+name.Schema, 0) {
			t.Fatalf("%q: %#v is no text", s, name)
		}
		again, err := schedule.ParseViewName(name.String())
		if err != nil || again != name {
			t.Fatalf("%q: %#v reads back from %q as %#v, %v", s, name, name.String(), again, err)
		}
	})
}

// The server's own parser, which a row typed by hand goes through, takes and refuses the same and reads the same.
func TestParseViewNameAsTheServerDoes(t *testing.T) {
	pool := pgtest.New(t)
	for _, in := range []string{
		"venue_view", " Cinema . Venue_View", `"a.b"."c d"`, "FOO", `"say ""hi"""`, "sélect", "ÄÖ", "v$1", `"x; drop table y; --"`,
		strings.Repeat("x", 63), strings.Repeat("x", 64), `"` + strings.Repeat("é", 32) + `"`, "a.b.c", "", `"`, `""`, "a b",
		`x"; drop table y; --`, "1a", "a..b", "select",
	} {
		name, ours := schedule.ParseViewName(in)
		var parts []*string
		theirs := pool.QueryRow(t.Context(), "select mvsched.parse_view_name($1)", in).Scan(&parts)
		if (ours == nil) != (theirs == nil) {
			t.Errorf("%q: we say %v, the server says %v", in, ours, theirs)
			continue
		}
		if ours != nil {
			continue
		}
		got := schedule.ViewName{Name: *parts[1]}
		if parts[0] != nil {
			got.Schema = *parts[0]
		}
		if got != name {
			t.Errorf("%q: we read %#v, the server reads %#v", in, name, got)
		}
	}
}
