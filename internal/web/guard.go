package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mvsched/mvsched/report"
)

// guard lets in who may read.
type guard struct {
	token     string // "": everybody may
	localOnly bool   // requests have to name this machine
	next      http.Handler
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src "+report.PageStyleSource()+
		"; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.URL.Path == pathBadge {
		header.Set("Cross-Origin-Resource-Policy", "cross-origin") // it is for other pages, and names no view
	}
	header.Set("Cache-Control", "no-store")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "this page can only be read")
	case r.ContentLength != 0:
		header.Set("Connection", "close") // else it would be waited for
		refuse(w, http.StatusBadRequest, "a request for this page has no body")
	case isProbe(r.URL.Path):
		g.next.ServeHTTP(w, r)
	case g.localOnly && !isLocalHost(r.Host):
		header.Set("Connection", "close")
		refuse(w, http.StatusForbidden, "this is the page of a program on another machine, or was asked for by another name than localhost")
	case g.token == "" || g.knows(r):
		defer holdPlace(r)()
		g.next.ServeHTTP(w, r)
	case r.URL.Path == "/" && g.isToken(r.URL.Query().Get("token")):
		g.welcome(w)
	default:
		header.Set("WWW-Authenticate", `Bearer realm="mvsched"`)
		header.Set("Connection", "close")
		refuse(w, http.StatusUnauthorized, "a token is needed: as /?token=… in a browser, or as Authorization: Bearer …")
	}
}

// isProbe is true of what tells nothing about views, and is asked by machines that keep no secrets.
func isProbe(path string) bool { return path == pathAlive || path == pathReady }

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, why) // who does not read it has hung up
}

func (g *guard) knows(r *http.Request) bool {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && g.isToken(bearer) {
		return true
	}
	name, value := g.cookie()
	cookie, err := r.Cookie(name)
	return err == nil && equal(cookie.Value, value)
}

func (g *guard) isToken(given string) bool { return equal(given, g.token) }

// equal takes the same time whatever is the matter, the lengths too.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// cookie is what a browser shows from its second request on. The token cannot be had from it; and as cookies know no
// ports, two servers of one machine have different names for theirs.
func (g *guard) cookie() (name, value string) {
	mac := hmac.New(sha256.New, []byte(g.token))
	mac.Write([]byte("mvsched page"))
	sum := hex.EncodeToString(mac.Sum(nil))
	return "mvsched_" + sum[:8], sum[8:]
}

const rememberFor = 30 * 24 * time.Hour

// welcome takes the token out of the address. It does not redirect: the browser may have come from another site, and would
// not send a strict cookie then; a page of our own that goes on by itself is of this site.
func (g *guard) welcome(w http.ResponseWriter) {
	name, value := g.cookie()
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure would keep it from plain HTTP, which is what this is
		Name: name, Value: value, Path: "/", MaxAge: int(rememberFor.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = fmt.Fprint(w, `<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=./">`+
		`<title>mvsched</title><p><a href="./">On to the page</a>`+"\n")
}
