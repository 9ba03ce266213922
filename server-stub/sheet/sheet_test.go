package sheet_test

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/sheet"
)

// TestNothingRuns reads what was written as spreadsheets do: with commas, and with
// the semicolons that Excel takes in half of Europe, whose cells and lines are others.
func TestNothingRuns(t *testing.T) {
	for _, cell := range []string{
		"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠A1",
		"pc;=1+1", "pc;;@A1", `pc;"=1+1"`, "pc; =1+1", "pc\n=1+1", "pc\r\n+1", "pc\t=1+1", "pc;＝1",
	} {
		var out bytes.Buffer
		if err := sheet.Write(&out, [][]string{{"device", cell, "end"}}); err != nil {
			t.Fatal(err)
		}
		for _, comma := range ",;\t" {
			r := csv.NewReader(bytes.NewReader(out.Bytes()))
			r.Comma, r.FieldsPerRecord, r.LazyQuotes = comma, -1, true
			rows, err := r.ReadAll()
			if err != nil {
				t.Fatalf("%q with %q: %v", cell, comma, err)
			}
			for _, got := range slices.Concat(rows...) {
				if runs(got) {
					t.Errorf("%q is a formula where cells end at %q: %q", cell, comma, got)
				}
			}
		}
	}
}

// runs says that a spreadsheet takes a cell for a formula.
func runs(cell string) bool {
	cell = strings.TrimLeft(cell, " \t\r\n\"")
	return cell != "" && strings.ContainsAny(cell[:1], "=+-@") || strings.HasPrefix(cell, "＝") ||
		strings.HasPrefix(cell, "＋") || strings.HasPrefix(cell, "－") || strings.HasPrefix(cell, "＠")
}

// TestPlainCellsStay: what is no formula is written as it is.
func TestPlainCellsStay(t *testing.T) {
	row := []string{"PC-7", `CORP\wang`, "a-b@example.com", "", "张三", "a, \"b\"", "2026-11-29T00:00:00Z", "1;2", "x=1; y", "no. 1\nno. 2", "'quoted'"}
	var out bytes.Buffer
	if err := sheet.Write(&out, [][]string{slices.Clone(row)}); err != nil {
		t.Fatal(err)
	}
	got, err := csv.NewReader(&out).Read()
	if err != nil || !slices.Equal(got, row) {
		t.Errorf("%q is read back as %q, %v", row, got, err)
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct{ proved, wanted, want uint32 }{
		{0, 0, 0}, {0, 7, 0}, {1, 3, 33}, {2, 3, 66}, {199, 200, 99}, {200, 200, 100}, {50_000_000, 50_000_001, 99}, {50_000_000, 50_000_000, 100},
	} {
		if got := sheet.Percent(&controlv1.CoverageRow{Proved: c.proved, Wanted: c.wanted}); got != c.want {
			t.Errorf("%d of %d are %d %%, want %d", c.proved, c.wanted, got, c.want)
		}
	}
}

func TestTime(t *testing.T) {
	shanghai := time.FixedZone("CST", 8*60*60)
	at := timestamppb.New(time.Date(2028, 3, 1, 7, 59, 59, 0, shanghai))
	if got := sheet.Time(at); got != "2028-02-29T23:59:59Z" {
		t.Errorf("a moment in Shanghai is written as %s", got)
	}
	if sheet.Time(nil) != "" || sheet.Time(timestamppb.New(time.Time{})) != "" {
		t.Error("no moment is written as one")
	}
}
