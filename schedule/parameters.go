package schedule

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Parameters are settings of the server that hold for the refresh of one view, by name. Which are allowed, and why no
// others, is told beside mvsched.may_be_set in schema.sql.
type Parameters map[string]ParameterValue

// String writes them as for --set, by name.
func (p Parameters) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(p)) {
		all = append(all, name+"="+string(p[name]))
	}
	return strings.Join(all, ", ")
}

// changes is the JSON that is laid over the settings that a schedule has: null where one goes.
func (p Parameters) changes() *string {
	if p == nil {
		return nil
	}
	changes := make(map[string]*ParameterValue, len(p))
	for name, value := range p {
		changes[name] = nullable(value)
	}
	text, _ := json.Marshal(changes) //nolint:errchkjson // strings can be written, whatever is in them
	return new(string(text))
}

// ParameterValue is as it was written: "256MB", off. A row typed by hand may have a number or a truth value there.
type ParameterValue string

// UnmarshalJSON takes the words of a string, a number and true or false for what they are.
func (v *ParameterValue) UnmarshalJSON(text []byte) error {
	var word string
	if json.Unmarshal(text, &word) != nil {
		word = string(text)
	}
	*v = ParameterValue(word)
	return nil
}
