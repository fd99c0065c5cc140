package alert

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// Format is the shape of what a hook gets.
type Format string

// The formats.
const (
	JSON  Format = "json"
	Slack Format = "slack" // {"text": …}, which Slack, Mattermost, Rocket.Chat and others take
)

// Formats returns all of them, the default first.
func Formats() []Format { return []Format{JSON, Slack} }

// message is an alert as JSON. Keys may be added. It is the same for each attempt, or a receiver that compares would take
// them for two.
type message struct {
	ID            string    `json:"id"`
	Database      string    `json:"database"`
	View          string    `json:"view"`
	State         string    `json:"state"`
	Severity      string    `json:"severity"`
	PreviousState string    `json:"previous_state"`
	Since         time.Time `json:"since"`
	Repeated      bool      `json:"repeated"`
	Message       string    `json:"message"`
}

// mostText bounds a message, in runes: an error may be long, and a receiver refuse it.
const mostText = 1000

func shortened(text string) string {
	if runes := []rune(text); len(runes) > mostText {
		return string(runes[:mostText]) + "…"
	}
	return text
}

// body is JSON as the command line writes it: what could command a terminal is escaped.
func (f Format) body(a schedule.Alert) ([]byte, error) {
	var content any = message{
		ID: a.ID, Database: a.Database, View: a.View, State: string(a.State), Severity: a.Severity,
		PreviousState: string(a.PreviousState), Since: a.Since.UTC(), Repeated: a.Repeated, Message: shortened(a.Message),
	}
	if f == Slack {
		content = map[string]any{"text": slackEscapes.Replace(sentence(a)), "mrkdwn": false, "unfurl_links": false}
	}
	body, err := json.Marshal(content)
	return []byte(report.Clean(string(body))), err
}

// In Slack's text these begin markup, such as a call to everybody in the channel; for Mattermost and Rocket.Chat @all is one,
// and [words](address) a link, unless something stands between that cannot be seen.
var slackEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b", "](", "]\u200b(")

// sentence is an alert for people.
func sentence(a schedule.Alert) string {
	still, after := "is", fmt.Sprintf(" (was %s)", a.PreviousState)
	if a.Repeated {
		still, after = "is still", fmt.Sprintf(" (since %s)", a.Since.UTC().Format("2006-01-02 15:04 MST"))
	}
	severity := strings.ToUpper(a.Severity)
	return fmt.Sprintf("%s: %s in database %s %s %s%s", severity, report.Exact(a.View), report.Exact(a.Database), still, shortened(a.Message), after)
}
