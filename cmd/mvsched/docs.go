package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// newDocsCmd writes the reference from the commands themselves: docs/cli.md and docs/mvsched.1, by `make docs`. The
// generators that cobra has would bring a Markdown parser and more into the program.
func newDocsCmd(a *app) *cobra.Command {
	formats := []string{"markdown", "man"}
	cmd := &cobra.Command{
		Use:       "docs {markdown | man}",
		Short:     "Write the reference of all commands",
		Hidden:    true,
		ValidArgs: formats,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
	}
	cmd.RunE = a.command(cmd, func(_ context.Context, args []string) error {
		commands := documented(cmd.Root())
		if args[0] == "man" {
			return a.write(manPage(commands))
		}
		return a.write(markdownPage(commands))
	})
	return cmd
}

// documented is a command and those below it, in the order of help.
func documented(cmd *cobra.Command) []*cobra.Command {
	commands := []*cobra.Command{cmd}
	below := cmd.Commands()
	if cmd.ContainsGroup(groupSchedule) {
		slices.SortStableFunc(below, func(a, b *cobra.Command) int { return groupOf(cmd, a) - groupOf(cmd, b) })
	}
	for _, sub := range below {
		if !sub.Hidden && sub.Name() != "help" {
			commands = append(commands, documented(sub)...)
		}
	}
	return commands
}

func groupOf(root, cmd *cobra.Command) int {
	i := slices.IndexFunc(root.Groups(), func(g *cobra.Group) bool { return g.ID == cmd.GroupID })
	if i < 0 {
		return len(root.Groups())
	}
	return i
}

// page is what is written of one command.
type page struct {
	path, synopsis, flags string
	paragraphs            []paragraph
}

// paragraph is prose, or, indented in the help, what keeps its lines.
type paragraph struct {
	text     string
	verbatim bool
}

func newPage(cmd *cobra.Command) page {
	cmd.InitDefaultHelpFlag()
	p := page{path: cmd.CommandPath(), synopsis: cmd.UseLine(), flags: strings.TrimRight(cmd.LocalFlags().FlagUsages(), "\n")}
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	p.paragraphs = paragraphs(text)
	if cmd.HasExample() {
		p.paragraphs = append(p.paragraphs, paragraph{"Example:", false}, paragraph{cmd.Example, true})
	}
	return p
}

// paragraphs divides a text at blank lines, and where it is indented.
func paragraphs(text string) (all []paragraph) {
	var lines []string
	verbatim := false
	end := func() {
		if len(lines) > 0 {
			all = append(all, paragraph{strings.Join(lines, "\n"), verbatim})
		}
		lines = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
		if line == "" || indented != verbatim {
			end()
		}
		if verbatim = indented; line != "" {
			lines = append(lines, line)
		}
	}
	end()
	return all
}

const generated = "written by `make docs` from the commands themselves"

func markdownPage(commands []*cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- %s -->\n\n# Command line reference\n\n", generated)
	b.WriteString("What `--help` says, of every command. [commands.md](commands.md) says more: what comes out, in which formats, and why.\n")
	b.WriteString("The same as a manual page: [mvsched.1](mvsched.1), for `man -l` or /usr/local/share/man/man1.\n")
	for _, cmd := range commands {
		p := newPage(cmd)
		fmt.Fprintf(&b, "\n## %s\n\n```\n%s\n```\n", p.path, p.synopsis)
		for _, paragraph := range p.paragraphs {
			if paragraph.verbatim {
				fmt.Fprintf(&b, "\n```\n%s\n```\n", paragraph.text)
			} else {
				b.WriteString("\n" + markdownProse.Replace(paragraph.text) + "\n")
			}
		}
		if p.flags != "" {
			fmt.Fprintf(&b, "\n```\n%s\n```\n", p.flags)
		}
	}
	return b.String()
}

// What stands in help texts as it is meant; backquotes are code there too.
var markdownProse = strings.NewReplacer("*", `\*`, "<", "&lt;", "|", `\|`)

func manPage(commands []*cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".\\\" %s\n.TH MVSCHED 1 \"\" \"mvsched\" \"User Commands\"\n", generated)
	for i, cmd := range commands {
		p := newPage(cmd)
		if i == 0 {
			fmt.Fprintf(&b, ".SH NAME\nmvsched \\- %s\n.SH SYNOPSIS\n.B %s\n.SH DESCRIPTION\n", roff(cmd.Short), roff(p.synopsis))
		} else {
			fmt.Fprintf(&b, ".SH %s\n.nf\n%s\n.fi\n", roff(strings.ToUpper(p.path)), roff(p.synopsis))
		}
		for _, paragraph := range p.paragraphs {
			if paragraph.verbatim {
				fmt.Fprintf(&b, ".PP\n.nf\n%s\n.fi\n", roff(paragraph.text))
			} else {
				fmt.Fprintf(&b, ".PP\n%s\n", roff(paragraph.text))
			}
		}
		if p.flags != "" {
			fmt.Fprintf(&b, ".PP\n.nf\n%s\n.fi\n", roff(p.flags))
		}
	}
	return b.String()
}

// roff is text that the typesetter of manual pages takes for nothing else.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
