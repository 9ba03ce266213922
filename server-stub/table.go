package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// table writes rows in columns; the first row is the heading.
func table(out io.Writer, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.Map(printable, cell)
		}
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
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

// day shows a moment as a date; "-" stands for none.
func day(t *timestamppb.Timestamp) string { return moment(t, time.DateOnly) }

// minute shows a moment to the minute, in UTC.
func minute(t *timestamppb.Timestamp) string { return moment(t, "2006-01-02 15:04") }

func moment(t *timestamppb.Timestamp, layout string) string {
	if t == nil || t.AsTime().IsZero() {
		return "-"
	}
	return t.AsTime().Format(layout)
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
