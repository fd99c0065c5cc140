package refresh

import (
	"strings"
	"testing"
)

func TestWithoutLiterals(t *testing.T) {
	for _, q := range []struct{ query, want string }{
		{"select * from public.v", "select * from public.v"},
		{"select 'it''s', E'a\\'b', 12.5, x1\n from t where a = 0xff", "select ?, ?, ?, x1 from t where a = ?"},
		{`select "a'b", "c""d" from t where n = 'open`, `select "a'b", "c""d" from t where n = ?`},
		{"select $$secret$$, 1 -- password 'x'\nfrom t", "select ?, ? from t"},
		{"do $body$ secret $body$", "do ?"},
		{"select /* 'secret' */ 1", "select ?"},
		{"/* secret", ""},
	} {
		if got := withoutLiterals(q.query); got != q.want {
			t.Errorf("%q: %q, want %q", q.query, got, q.want)
		}
	}
	if got := withoutLiterals(strings.Repeat("é ", 500)); len([]rune(got)) != maxQuery+1 {
		t.Errorf("%d characters", len([]rune(got)))
	}
}
