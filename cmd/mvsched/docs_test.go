package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandTree is what a user can type: the paths of all commands, aliases included, and their long flags.
type commandTree struct {
	commands map[string]map[string]bool // "mvsched add", also "mvsched" itself, with their flags: "every"
	flags    map[string]bool            // those of all commands
}

func newTestRootCmd() *cobra.Command {
	root := newRootCmd(newApp(environment{
		stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" },
	}))
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

func readCommandTree() commandTree {
	root := newTestRootCmd()
	tree := commandTree{commands: map[string]map[string]bool{}, flags: map[string]bool{}}
	tree.visit(root, "")
	return tree
}

func (tree commandTree) visit(cmd *cobra.Command, parent string) {
	cmd.InitDefaultHelpFlag()
	own := map[string]bool{}
	for _, flags := range []*pflag.FlagSet{cmd.LocalFlags(), cmd.InheritedFlags()} {
		flags.VisitAll(func(flag *pflag.Flag) { own[flag.Name], tree.flags[flag.Name] = true, true })
	}
	for _, name := range append([]string{cmd.Name()}, cmd.Aliases...) {
		path := strings.TrimSpace(parent + " " + name)
		tree.commands[path] = own
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				tree.visit(sub, path)
			}
		}
	}
}

// TestDocs keeps README.md, CHANGELOG.md and docs/ to what the program has.
func TestDocs(t *testing.T) {
	tree := readCommandTree()
	pages := readPages(t)

	t.Run("commands.md_has_every_command", func(t *testing.T) {
		page := pages[filepath.Join("docs", "commands.md")]
		for path := range tree.commands {
			words := strings.Fields(path)
			if !mentions(page, words[len(words)-1]) {
				t.Errorf("the command %q is missing", path)
			}
			if len(words) == 2 && words[1] == canonical(words[1]) && !strings.Contains(page, "\nmvsched "+words[1]) {
				t.Errorf("the command %q has no synopsis", path)
			}
		}
	})

	t.Run("cli.md_and_the_manual_page_are_of_these_commands", func(t *testing.T) {
		commands := documented(newTestRootCmd())
		for name, want := range map[string]string{"cli.md": markdownPage(commands), "mvsched.1": manPage(commands)} {
			if got, err := os.ReadFile(filepath.Join(repository, "docs", name)); err != nil || string(got) != want {
				t.Errorf("docs/%s is of other commands (%v): run `make docs`", name, err)
			}
		}
		for flag := range tree.flags {
			if !mentions(pages[filepath.Join("docs", "cli.md")], "--"+flag) {
				t.Errorf("the flag --%s is missing", flag)
			}
		}
	})

	t.Run("no_page_has_a_command_or_flag_that_does_not_exist", func(t *testing.T) {
		for name, page := range pages {
			if name == filepath.Join("docs", "cli.md") {
				continue // it is what there is, and cobra's help of completion, which has commands of others
			}
			for _, call := range callsIn(page) {
				flags, known := tree.commands["mvsched "+call.command]
				if !known {
					t.Errorf("%s: there is no command `mvsched %s`", name, call.command)
				}
				for _, flag := range call.flags {
					if known && !flags[flag] {
						t.Errorf("%s: `mvsched %s` has no flag --%s", name, call.command, flag)
					}
				}
			}
			for _, flag := range flagsIn(page) {
				if !tree.flags[flag] {
					t.Errorf("%s: there is no flag --%s", name, flag)
				}
			}
		}
	})

	t.Run("links_between_the_pages_lead_somewhere", func(t *testing.T) {
		for name, page := range pages {
			for _, link := range linksIn(page) {
				path, anchor, _ := strings.Cut(link, "#")
				target := name
				if path != "" {
					target = filepath.Join(filepath.Dir(name), filepath.FromSlash(path))
				}
				if _, err := os.Stat(filepath.Join(repository, target)); err != nil {
					t.Errorf("%s: the link %q leads nowhere: %v", name, link, err)
				} else if anchor != "" && !slices.Contains(anchorsIn(pages[target]), anchor) {
					t.Errorf("%s: the link %q leads to no heading of %s", name, link, target)
				}
			}
		}
	})
}

// repository is the top of the repository as the tests see it.
var repository = filepath.Join("..", "..")

// readPages returns the pages by their paths in the repository.
func readPages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, name := range append(names, filepath.Join(repository, "README.md"), filepath.Join(repository, "CHANGELOG.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		path, err := filepath.Rel(repository, name)
		if err != nil {
			t.Fatal(err)
		}
		pages[path] = string(text)
	}
	return pages
}

// canonical leaves aliases out: they have no section of their own, nor has help.
func canonical(command string) string {
	switch command {
	case "ls", "rm", "help":
		return ""
	}
	return command
}

// mentions reports whether a word stands in the page by itself: --limit is not in --limit-rate.
func mentions(page, word string) bool {
	return regexp.MustCompile(`(?:^|[^\w-])` + regexp.QuoteMeta(word) + `(?:[^\w-]|$)`).MatchString(page)
}

var (
	// In a sentence only what is set as code is a command: "mvsched refreshes" is none.
	fencedBlock = regexp.MustCompile("(?ms)^```.*?^```")
	codeSpan    = regexp.MustCompile("`[^`\n]+`")

	commandCall = regexp.MustCompile(`(?m)(?:^|[\s('/` + "`" + `])mvsched((?:[ \t]+[^\s` + "`" + `]+)+)`)
	commandWord = regexp.MustCompile(`^[a-z]+$`)
	longFlag    = regexp.MustCompile(`(?:^|[\s` + "`" + `(\[|])--([a-z][a-z-]*)`)
	pageLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading     = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// call is a command as a page shows it.
type call struct {
	command string
	flags   []string
}

// callsIn returns what stands after every mvsched in code; the schema has the same name.
func callsIn(page string) []call {
	var calls []call
	for _, code := range codeIn(page) {
		for _, match := range commandCall.FindAllStringSubmatch(strings.ReplaceAll(code, "schema mvsched", ""), -1) {
			for word := range strings.FieldsSeq(match[1]) {
				if strings.HasPrefix(word, "-") {
					continue
				}
				if commandWord.MatchString(word) {
					calls = append(calls, call{word, longFlags(match[1])})
				}
				break
			}
		}
	}
	return calls
}

// flagsIn returns every long flag in code.
func flagsIn(page string) []string {
	var flags []string
	for _, code := range codeIn(page) {
		flags = append(flags, longFlags(code)...)
	}
	return flags
}

func longFlags(code string) []string {
	var flags []string
	for _, flag := range longFlag.FindAllStringSubmatch(code, -1) {
		flags = append(flags, flag[1])
	}
	return flags
}

func codeIn(page string) []string {
	code := fencedBlock.FindAllString(page, -1)
	return append(code, codeSpan.FindAllString(fencedBlock.ReplaceAllString(page, ""), -1)...)
}

// linksIn returns the links that stay within the repository.
func linksIn(page string) []string {
	var links []string
	for _, link := range pageLink.FindAllStringSubmatch(fencedBlock.ReplaceAllString(page, ""), -1) {
		if !strings.Contains(link[1], "://") {
			links = append(links, link[1])
		}
	}
	return links
}

// anchorsIn returns what the headings of a page are linked by.
func anchorsIn(page string) []string {
	var anchors []string
	for _, line := range heading.FindAllStringSubmatch(fencedBlock.ReplaceAllString(page, ""), -1) {
		anchor := notInAnchor.ReplaceAllString(strings.ToLower(line[1]), "")
		anchors = append(anchors, strings.ReplaceAll(anchor, " ", "-"))
	}
	return anchors
}
