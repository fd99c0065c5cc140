package report

import "strings"

// The kinds of annotations.
const (
	AnnotateError   = "error"
	AnnotateWarning = "warning"
)

// Data of a workflow command ends with its line, and values of its properties also with a comma and a colon.
var (
	commandData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	commandProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// Annotation is a line that GitHub shows on the page of the build, a workflow command. It is the one kind of command that
// may leave the program, past its clean writer: title and text are cleaned here, and cannot end it or be another one.
func Annotation(kind, title, text string) string {
	return "::" + kind + " title=" + commandProperty.Replace(clean(OneLine(title))) + "::" + commandData.Replace(annotated(text)) + "\n"
}

// annotated keeps the line breaks that are ours: between a problem and its hint.
func annotated(text string) string { return strings.TrimSpace(clean(text)) }
