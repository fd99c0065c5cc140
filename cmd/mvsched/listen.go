package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/internal/web"
	"github.com/mvsched/mvsched/schedule"
)

// listenFlags are what serve may be told about its status page.
type listenFlags struct {
	address   string
	tokenFile string
	insecure  bool
}

func (f *listenFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.address, "listen", "", "serve a status page, metrics and probes at this address: 127.0.0.1:8080, or :8080 for the same")
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "let in only who has the token in this file")
	cmd.Flags().BoolVar(&f.insecure, "insecure", false, "let in everybody who can reach the address")
}

// listenOptions are these, found to be in order.
type listenOptions struct {
	address web.Address
	token   string // "": none is asked for
}

// parse returns nil when there is to be no page.
func (f *listenFlags) parse(cmd *cobra.Command) (*listenOptions, error) {
	given := cmd.Flags().Changed
	switch {
	case !given("listen") && (given("token-file") || f.insecure):
		return nil, &usageError{problem: "--token-file and --insecure are for --listen", hint: "add --listen 127.0.0.1:8080"}
	case !given("listen"):
		return nil, nil //nolint:nilnil // nobody wants a page
	case given("token-file") && f.insecure:
		return nil, &usageError{problem: "--token-file and --insecure exclude each other"}
	}
	address, err := web.ParseAddress(f.address)
	if err != nil {
		return nil, &usageError{problem: fmt.Sprintf("--listen: %q %v", f.address, err), hint: "write --listen 127.0.0.1:8080, or :8080 for the same"}
	}
	opts := &listenOptions{address: address}
	switch {
	case given("token-file"):
		opts.token, err = readToken(f.tokenFile)
	case !address.Loopback() && !f.insecure:
		err = &usageError{
			problem: fmt.Sprintf("--listen: other machines can reach %s, and would read the names of views and the texts of errors", address),
			hint:    "add --token-file FILE (`" + howToMake + "` makes one), or --insecure; or listen on 127.0.0.1",
		}
	}
	return opts, err
}

const (
	minToken  = 16 // what nobody guesses
	maxToken  = 1024
	howToMake = "(umask 077; openssl rand -hex 32 > FILE)"
)

// readToken reads a secret from a file, and refuses one that others know already.
func readToken(file string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", &usageError{problem: fmt.Sprintf("--token-file: %s %s", file, why), hint: "`" + howToMake + "` makes a good one"}
	}
	f, err := os.Open(file) //nolint:gosec // a file that the caller names
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return "", &usageError{problem: fmt.Sprintf("--token-file: %s cannot be read: %v", file, err)}
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return refuse("cannot be read")
	case info.IsDir():
		return refuse("is a directory")
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0:
		return "", &usageError{problem: fmt.Sprintf("--token-file: everybody on this machine may read or change %s", file), hint: "chmod o= " + file}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxToken+2))
	token := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return refuse("cannot be read")
	case len(text) > maxToken:
		return refuse(fmt.Sprintf("holds more than %d bytes", maxToken))
	case token == "":
		return refuse("is empty")
	case len(token) < minToken:
		return refuse(fmt.Sprintf("holds a token of %d characters, which is too short: %d are the least", len(token), minToken))
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return refuse("holds more than one word of printable ASCII")
	}
	return token, nil
}

// open takes the address, before anything is begun that would have to be stopped when somebody else has it.
func (o *listenOptions) open(ctx context.Context, a *app) (*web.Server, error) {
	if o == nil {
		return nil, nil //nolint:nilnil // nobody wants a page
	}
	server, err := web.Listen(ctx, o.address, web.Options{Token: o.token, Log: a.logger()})
	if err != nil {
		return nil, &usageError{problem: fmt.Sprintf("--listen: cannot listen on %s: %s", o.address, rootCause(err)), hint: "choose another address", err: err}
	}
	return server, nil
}

// servePage answers until ctx ends, or the function that it returns is called; that one waits for the end. Of a bug it tells
// failed.
func servePage(ctx context.Context, a *app, page *web.Server, store *schedule.Store, database string, failed func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		switch err := page.Serve(ctx, store, database); {
		case errors.Is(err, schedule.ErrBug):
			failed(err)
		case err != nil:
			a.note("%v; refreshes go on", err)
		}
	}()
	a.talk("status page: %s", page.URL())
	return func() {
		cancel()
		<-done
	}
}
