// Package sheet writes tables for people's spreadsheets: CSV in which no cell
// is run as a formula, and the tables that both the command line and the web
// page have.
package sheet

import (
	"encoding/csv"
	"fmt"
	"io"
	"regexp"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
)

// Full is the form of times in CSV, always UTC.
const Full = "2006-01-02T15:04:05Z"

// Write writes rows as CSV, the first of them the heading.
func Write(out io.Writer, rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			row[i] = inert(cell)
		}
	}
	return csv.NewWriter(out).WriteAll(rows)
}

// inert keeps a spreadsheet from running what a device calls itself as a formula:
// an apostrophe makes it text. Formulas begin with a cell, and cells do so behind
// other separators too where the spreadsheet expects them, as Excel does
// semicolons in half of Europe; the quotes that CSV has do not help there.
func inert(cell string) string {
	return formula.ReplaceAllString(cell, "$1'$2")
}

// formula is what would begin one, also in the wide forms that are taken in East Asia.
var formula = regexp.MustCompile(`(^|[;\t\r\n])([ "]*[=+\-@＝＋－＠])`)

// Time writes a moment; nothing for one that is not there.
func Time(t *timestamppb.Timestamp) string {
	if t == nil || t.AsTime().IsZero() {
		return ""
	}
	return t.AsTime().UTC().Format(Full)
}

// Departments are the rows of a coverage report, with the total last.
func Departments(c *controlv1.GetCoverageResponse) [][]string {
	rows := [][]string{{
		"department", "people", "wanted", "proved", "proved_percent", "unproved", "waiting", "refused", "missing", "ending_soon",
	}}
	for _, r := range c.GetDepartments() {
		rows = append(rows, department(r.GetDepartment(), r))
	}
	return append(rows, department("total", c.GetTotal()))
}

func department(name string, r *controlv1.CoverageRow) []string {
	row := []string{name}
	for _, n := range []uint32{r.GetPeople(), r.GetWanted(), r.GetProved(), Percent(r), r.GetUnproved(), r.GetWaiting(), r.GetRefused(), r.GetMissing(), r.GetEnding()} {
		row = append(row, fmt.Sprint(n))
	}
	return row
}

// Percent is how much of what is wanted is proved, rounded down: only all is 100.
func Percent(r *controlv1.CoverageRow) uint32 {
	if r.GetWanted() == 0 {
		return 0
	}
	return uint32(uint64(r.GetProved()) * 100 / uint64(r.GetWanted())) //nolint:gosec // at most 100, or so
}

// Wishes are the lines of a coverage report, one for each certificate that somebody is to have.
func Wishes(c *controlv1.GetCoverageResponse) [][]string {
	rows := [][]string{{
		"department", "account", "name", "mailbox", "profile", "state", "cause", "hostname", "device", "ends", "proved_at", "serial",
	}}
	for _, w := range c.GetWishes() {
		rows = append(rows, []string{
			w.GetDepartment(), w.GetAccount(), w.GetName(), w.GetMailbox(), w.GetProfile(), w.GetState(), w.GetCause(),
			w.GetHostname(), w.GetDeviceId(), Time(w.GetEnds()), Time(w.GetProvedAt()), w.GetSerial(),
		})
	}
	return rows
}
