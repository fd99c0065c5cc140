package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
)

// environment is what the program has of the world outside the database.
type environment struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string
}

func system() environment {
	return environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
}

// app is what the commands share: the streams, cleaned of what could command a terminal, and the persistent flags.
type app struct {
	environment
	terminal    io.Writer // stderr as it is, for the live lines, when it is a terminal; else nil
	terminalOut io.Writer // stdout as it is, for its width
	annotations io.Writer // stderr as it is, for what GitHub is told
	output      *output   // what became of stdout
	screen      *screen

	databaseURL string
	format      string
	color       string
	quiet       bool
	verbose     bool

	grace *atomic.Int64 // how long what is running may go on after the first signal, in nanoseconds
	began bool          // a command was found and its arguments were in order

	formats map[*cobra.Command][]report.Format // that each command takes, for the shell to offer

	monitors bool // it is check, which has exit codes of its own
}

func newApp(env environment) *app {
	a := &app{
		environment: env, terminalOut: env.stdout, annotations: env.stderr, grace: new(atomic.Int64),
		formats: map[*cobra.Command][]report.Format{},
	}
	if isTerminal(env.stderr) {
		a.terminal = env.stderr
	}
	a.output, a.screen = &output{w: env.stdout}, &screen{terminal: env.stdout}
	a.stdout, a.stderr = report.NewCleanWriter(a.output), report.NewCleanWriter(env.stderr)
	return a
}

// run is the program: arguments in, exit code out.
func run(args []string, env environment, extra ...func(*app) *cobra.Command) (code int) {
	a := newApp(env)
	defer func() {
		if bug := recover(); bug != nil {
			a.printError(fmt.Sprintf("bug: %v", bug), "please report it with the lines below")
			_, _ = a.stderr.Write(debug.Stack())
			code = exitBug
			if a.monitors {
				code = a.unknown("a bug", "")
			}
		}
	}()

	ctx, stop := withSignals(context.Background(), a.grace, a.screen.leave)
	defer stop()
	root := newRootCmd(a)
	for _, newCmd := range extra {
		root.AddCommand(newCmd(a))
	}
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	a.monitors = command.Name() == checkName
	switch {
	case a.output.err != nil && !a.began: // help and completion are cobra's own
		err = &outputError{a.output.err}
	case err != nil && !a.began:
		err = &usageError{problem: err.Error(), hint: "see `" + command.CommandPath() + " --help`", err: err}
	case err == nil && a.output.err != nil:
		err = &outputError{a.output.err}
	}
	var signalled *signalError
	if err != nil && errors.As(context.Cause(ctx), &signalled) {
		err = errors.Join(signalled, err) // whatever broke, broke because of it
	}
	return a.finish(err)
}

// output remembers the first failed write.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// command wraps what a command does: what goes wrong before it is wrong use, what goes wrong in it is not.
func (a *app) command(cmd *cobra.Command, do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return a.inFormats(cmd, []report.Format{report.Table, report.JSON}, do)
}

// listCommand is command for one that prints rows.
func (a *app) listCommand(cmd *cobra.Command, do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return a.inFormats(cmd, report.ListFormats(), do)
}

// commandIn is command for one that has output formats of its own, which its help names; the first one is its default.
func (a *app) commandIn(cmd *cobra.Command, formats []report.Format, do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	names := make([]string, len(formats))
	for i, format := range formats {
		names[i] = string(format)
	}
	last := len(names) - 1
	usage := strings.TrimPrefix(strings.Join(names[:last], ", ")+" or "+names[last], " or ")
	cmd.Flags().StringVarP(&a.format, "output", "o", names[0], "output format: "+usage)
	register(cmd, "output", a.completeFormats)
	return a.inFormats(cmd, formats, do)
}

func (a *app) inFormats(cmd *cobra.Command, formats []report.Format, do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	a.formats[cmd] = formats
	return func(cmd *cobra.Command, args []string) error {
		a.began = true
		if !cmd.Flags().Changed("output") {
			a.format = string(formats[0])
		}
		if !slices.Contains(formats, report.Format(a.format)) {
			var choices []string
			for _, format := range formats {
				choices = append(choices, "-o "+string(format))
			}
			return &usageError{
				problem: fmt.Sprintf("unknown output format %q", a.format), hint: "use " + strings.Join(choices, " or "),
			}
		}
		if !slices.Contains([]string{colorAuto, colorAlways, colorNever}, a.color) {
			return &usageError{problem: fmt.Sprintf("--color: it cannot be %q", a.color), hint: "use auto, always or never"}
		}
		return do(cmd.Context(), args)
	}
}

// print writes to stdout what write lays out, all at once.
func (a *app) print(write func(report.Printer) error) error {
	var buf bytes.Buffer
	printer := report.Printer{W: &buf, Format: report.Format(a.format), Width: a.stdoutWidth(), ASCII: !a.isUTF8()}
	printer.Color = printer.Format == report.Table && a.colors()
	if err := write(printer); err != nil {
		return err
	}
	stdout := a.stdout
	if printer.Color {
		stdout = report.NewColorWriter(a.output)
	}
	return writeTo(stdout, buf.String())
}

func (a *app) write(s string) error { return writeTo(a.stdout, s) }

func writeTo(w io.Writer, s string) error {
	if s == "" {
		return nil // an empty write may fail too
	}
	if _, err := io.WriteString(w, s); err != nil {
		return &outputError{err}
	}
	return nil
}

// say tells a person at the terminal something that a script does not want to hear.
func (a *app) say(format string, args ...any) {
	if a.terminal != nil && !a.quiet {
		_, _ = fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// talk tells on stderr what goes on, also where nobody watches.
func (a *app) talk(format string, args ...any) {
	if !a.quiet {
		_, _ = fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// progress returns what shows the progress of long work on one line of the terminal; elsewhere it shows nothing.
func (a *app) progress(what string) func(done, total int, step string) {
	return func(done, total int, step string) {
		line := ""
		if done < total {
			line = fmt.Sprintf("%s: %d of %d, %s", what, done+1, total, step)
		}
		a.line(line)
	}
}

// line shows one line on the terminal in place of the one before; "" takes it away.
func (a *app) line(text string) {
	if a.terminal != nil && !a.quiet {
		_, _ = fmt.Fprintf(a.terminal, "\r\x1b[K%s", text)
	}
}

// note tells on stderr something that nobody should miss.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		_, _ = fmt.Fprintf(a.stderr, "note: %s\n", report.OneLine(fmt.Sprintf(format, args...)))
	}
}

// printError is how every error looks. Where stderr is gone too, there is nobody left to tell.
func (a *app) printError(problem, hint string) {
	_, _ = fmt.Fprintf(a.stderr, "error: %s\n", report.OneLine(strings.TrimSpace(problem)))
	if hint != "" {
		_, _ = fmt.Fprintf(a.stderr, "hint: %s\n", report.OneLine(hint))
	}
}

// logger is for the library: warnings become notes, and everything else is for --verbose.
func (a *app) logger() *slog.Logger { return slog.New(&noteHandler{app: a}) }

// noteHandler writes log records in the voice of the command line.
type noteHandler struct {
	app   *app
	attrs []slog.Attr
}

func (h *noteHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || h.app.verbose
}

func (h *noteHandler) Handle(_ context.Context, record slog.Record) error {
	text := record.Message
	var details []string
	attr := func(at slog.Attr) bool {
		if at.Key == "view" {
			text = at.Value.String() + ": " + text
		} else {
			details = append(details, at.Key+" "+at.Value.String())
		}
		return true
	}
	for _, at := range h.attrs {
		attr(at)
	}
	record.Attrs(attr)
	if len(details) > 0 {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	h.app.note("%s", text)
	return nil
}

func (h *noteHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &noteHandler{app: h.app, attrs: append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h *noteHandler) WithGroup(string) slog.Handler { return h }

// shutdownPatience is how long a stopped program may take to cancel and record what ran.
const shutdownPatience = 4500 * time.Millisecond
