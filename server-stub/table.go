package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/text/width"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// table writes rows in columns; the first row is the heading. Chinese characters
// count as the two columns that a terminal gives them.
func table(out io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.Map(printable, cell)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], columnsOf(row[i]))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-columnsOf(cell)+2))
			}
		}
		if _, err := fmt.Fprintln(out, line.String()); err != nil {
			return err
		}
	}
	return nil
}

func columnsOf(text string) int {
	n := 0
	for _, r := range text {
		n++
		if kind := width.LookupRune(r).Kind(); kind == width.EastAsianWide || kind == width.EastAsianFullwidth {
			n++
		}
	}
	return n
}

// printable keeps what a device says of itself from steering the terminal.
func printable(r rune) rune {
	if r < ' ' || r >= 0x7f && r < 0xa0 {
		return '?'
	}
	return r
}

// printJSON writes messages as one JSON array, indented.
func printJSON[M proto.Message](out io.Writer, messages []M) error {
	list := make([]json.RawMessage, 0, len(messages))
	for _, m := range messages {
		data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			return err
		}
		list = append(list, data)
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(list)
}

// none stands for what is not there.
const none = "-"

// day shows a moment as a date.
func day(t *timestamppb.Timestamp) string { return moment(t, time.DateOnly) }

// minute shows a moment to the minute, in UTC.
func minute(t *timestamppb.Timestamp) string { return moment(t, "2006-01-02 15:04") }

func moment(t *timestamppb.Timestamp, layout string) string {
	if t == nil || t.AsTime().IsZero() {
		return none
	}
	return t.AsTime().Format(layout)
}

func dash(text string) string {
	if text == "" {
		return none
	}
	return text
}
