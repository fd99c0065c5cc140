package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// The limits of a request. Of an answer no more is read than it takes to use the connection again.
const (
	requestTimeout = 10 * time.Second
	mostRedirects  = 3
	mostRead       = 64 << 10
)

// SignatureHeader carries the signature of a body: "sha256=", and the HMAC-SHA256 with the secret in hexadecimal digits.
const SignatureHeader = "Mvsched-Signature"

// ErrURL is that a URL is of no use. It does not show it: who knows the URL may use it.
var ErrURL = errors.New("not a URL with http:// or https:// and a host")

// Hook is a receiver of alerts. How many goroutines use it at a time does not matter.
type Hook struct {
	url    string
	host   string
	format Format
	secret []byte
	target schedule.AlertTarget
	client *http.Client
	woken  chan struct{}

	mu       sync.Mutex
	troubled map[string]bool // the views that are not well, as of the last look
	failing  bool            // it was said that telling fails
}

// NewHook returns a receiver; no secret: what it gets is not signed. The error is ErrURL.
func NewHook(address string, format Format, secret []byte) (*Hook, error) {
	u, err := parseURL(address)
	if err != nil {
		return nil, err
	}
	return &Hook{
		url: address, host: u.Host, format: format, secret: secret, target: targetOf(address, u.Host, format),
		client: newClient(), woken: make(chan struct{}, 1),
	}, nil
}

func parseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, ErrURL
	}
	return u, nil
}

// newClient returns a client of its own, so that nothing else in the process shares its connections and settings.
func newClient() *http.Client {
	return &http.Client{
		Timeout:       requestTimeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
		CheckRedirect: checkRedirect,
	}
}

// checkRedirect follows what stays on the host and repeats the request as it was. Another host is not who was to be told,
// and a POST that becomes a GET tells nothing.
func checkRedirect(next *http.Request, before []*http.Request) error {
	first := before[0]
	if len(before) > mostRedirects || next.URL.Host != first.URL.Host || next.URL.Scheme != first.URL.Scheme || next.Method != first.Method {
		return http.ErrUseLastResponse
	}
	return nil
}

// Host is the part of the URL that may be shown.
func (h *Hook) Host() string { return h.host }

func (h *Hook) wake() {
	select {
	case h.woken <- struct{}{}:
	default: // it is to look anyway
	}
}

func (h *Hook) isTroubled(view string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.troubled[view]
}

func (h *Hook) setTroubled(views map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.troubled = views
}

// say tells once that alerts do not get through, and once that they do again.
func (h *Hook) say(log *slog.Logger, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil && h.failing:
		log.Debug("alerts still do not get through", "because", err)
	case err != nil:
		log.Warn("alerts do not get through, and wait", "because", err)
	case h.failing:
		log.Warn("alerts get through again")
	}
	h.failing = err != nil
}

// post tells one alert. Its error never shows the URL.
func (h *Hook) post(ctx context.Context, alert schedule.Alert) error {
	body, err := h.format.body(alert)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return ErrURL
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", userAgent)
	if len(h.secret) > 0 {
		request.Header.Set(SignatureHeader, Sign(h.secret, body))
	}
	return send(h.client, request)
}

const userAgent = "mvsched"

// Sign returns the signature of a body, as SignatureHeader carries it.
func Sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// statusError is an answer that does not say that all went well.
type statusError struct {
	code       int
	retryAfter time.Duration // 0: it does not say
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the answer was %d %s", e.code, http.StatusText(e.code))
}

func send(client *http.Client, request *http.Request) error {
	response, err := client.Do(request)
	if err != nil {
		return withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.CopyN(io.Discard, response.Body, mostRead) // what it says does not matter, nor whether it says it to the end
	if response.StatusCode/100 != 2 {
		failed := &statusError{code: response.StatusCode}
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds < 1e6 {
			failed.retryAfter = time.Duration(seconds) * time.Second
		}
		return failed
	}
	return nil
}

// withoutURL is what a request failed with, but for the URL, and for others that net/http quotes: who knows one may use it.
func withoutURL(err error) error {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err
	}
	var network *net.OpError
	switch text := err.Error(); {
	case strings.Contains(text, "transport connection broken") && !errors.As(err, &network):
		return errors.New("the answer is not HTTP") // and may be the request
	case strings.Contains(text, "Location"):
		return errors.New("the answer leads nowhere")
	case strings.Contains(text, "proxy address"):
		return errors.New("the proxy's address (HTTPS_PROXY, HTTP_PROXY) is none")
	}
	return err
}
