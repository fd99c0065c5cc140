// Package browser looks at the page in a real browser, which is no dependency of the program. Each test leaves pictures;
// `go test -artifacts` keeps them.
package browser

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/mvsched/mvsched/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience is how long a page may take; nothing is measured with it.
const patience = time.Minute

// tab is a page in chromium.
type tab struct {
	*testing.T
	ctx context.Context
}

// open opens a page, and fails the test when that page opens a dialog, ever.
func open(t *testing.T, url string) *tab {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.NoSandbox) // root may not have one
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t, ctx}
	err := chromedp.Listen(ctx, func(event any) {
		if dialog, ok := event.(*page.EventJavascriptDialogOpening); ok {
			t.Errorf("a dialog: %s", dialog.Message)
		}
	})
	if err != nil {
		t.Fatalf("no browser (apt-get install chromium): %v", err)
	}
	b.do(chromedp.Navigate(url))
	return b
}

// openFile opens a page that lies in a file, as a report does.
func openFile(t *testing.T, html []byte) *tab {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(file, html, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, "file://"+file)
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.Fatal(err)
	}
}

// evaluate is what an expression of JavaScript is in the page. The tools of a browser may run it; the page itself may not.
func evaluate[V any](b *tab, expression string) V {
	b.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[V](expression))
	if err != nil {
		b.Fatal(err)
	}
	return value
}

// look is a way to look at a page.
type look struct {
	name   string
	scheme string
	width  int64
}

func looks() []look {
	return []look{{"light", "light", 1280}, {"dark", "dark", 1280}, {"laptop", "light", 1100}, {"window", "light", 1000}, {"tablet", "light", 768}, {"small", "light", 320}, {"phone", "light", 400}, {"phone_dark", "dark", 400}}
}

func (b *tab) as(l look) {
	b.Helper()
	b.do(chromedp.EmulateViewport(l.width, 800), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}},
		})
		return err
	}))
}

// picture keeps what the whole page looks like.
func (b *tab) picture(name string) {
	b.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.ArtifactDir(), name+".png"), png, 0o600); err != nil {
		b.Fatal(err)
	}
}

// roles counts what somebody who hears the page hears, by role.
func (b *tab) roles() map[string]int {
	b.Helper()
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.Fatal(err)
	}
	roles := map[string]int{}
	for _, node := range tree.Nodes {
		var role string
		if node.Ignored || node.Role == nil {
			continue
		}
		if err := json.Unmarshal(node.Role.Value, &role); err != nil {
			b.Fatal(err)
		}
		roles[role]++
	}
	return roles
}
