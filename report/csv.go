package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// writeCSV writes the records that JSON has, with a header of its keys. The members of an inner object are columns of
// their own (last_status), a list is JSON, null is an empty cell. Text is exact, and defused.
func writeCSV[T, J any](w io.Writer, rows []T, convert func(T) J) error {
	var buf bytes.Buffer
	writer := csv.NewWriter(&buf)
	var head []string
	flatten("", reflect.TypeFor[J](), reflect.Value{}, func(name string, _ reflect.Value) { head = append(head, name) })
	if err := writer.Write(head); err != nil {
		return fmt.Errorf("encoding CSV: %w", err)
	}
	for _, row := range rows {
		cells := make([]string, 0, len(head))
		var failed error
		flatten("", reflect.TypeFor[J](), reflect.ValueOf(convert(row)), func(_ string, v reflect.Value) {
			cell, err := csvCell(v)
			if err != nil {
				failed = err
			}
			cells = append(cells, cell)
		})
		if failed != nil {
			return fmt.Errorf("encoding CSV: %w", failed)
		}
		if err := writer.Write(cells); err != nil {
			return fmt.Errorf("encoding CSV: %w", err)
		}
	}
	writer.Flush()
	if err := writer.Error(); err != nil {
		return fmt.Errorf("encoding CSV: %w", err)
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// flatten visits the members of a struct as JSON names and orders them. Of an inner object that is null, v is invalid, and
// so are its members.
func flatten(prefix string, t reflect.Type, v reflect.Value, visit func(name string, v reflect.Value)) {
	for i := range t.NumField() {
		field, member := t.Field(i), reflect.Value{}
		if v.IsValid() {
			member = v.Field(i)
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		inner := field.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
			if member.IsValid() {
				member = member.Elem()
			}
		}
		switch {
		case field.Anonymous:
			flatten(prefix, inner, member, visit)
		case inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]():
			flatten(prefix+name+"_", inner, member, visit)
		default:
			visit(prefix+name, member)
		}
	}
}

func csvCell(v reflect.Value) (string, error) {
	if !v.IsValid() {
		return "", nil
	}
	switch value := v.Interface().(type) {
	case time.Time:
		return value.Format(time.RFC3339Nano), nil
	case string:
		return defuse(exact(value)), nil
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), nil
	case reflect.Int, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), nil
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64), nil
	case reflect.Slice, reflect.Map:
		if v.IsNil() {
			return "", nil
		}
		var list strings.Builder
		encoder := json.NewEncoder(&list)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(v.Interface()); err != nil {
			return "", err
		}
		return defuse(exact(strings.TrimSuffix(list.String(), "\n"))), nil
	default:
		return "", fmt.Errorf("a cell cannot hold a %s", v.Type())
	}
}

// formulaStarts is what a spreadsheet takes for the start of a formula, in some languages also in full width. The quote is
// among them so that defusing can be undone.
const formulaStarts = "'=+-@\t\r＝＋－＠"

// defuse puts a quote before text that a spreadsheet would compute, and before text that begins with a quote.
func defuse(s string) string {
	if first, _ := utf8.DecodeRuneInString(s); strings.ContainsRune(formulaStarts, first) {
		return "'" + s
	}
	return s
}
