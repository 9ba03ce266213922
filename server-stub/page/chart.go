package page

import (
	"cmp"
	"slices"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/sheet"
)

// The measures of the charts, in the units of their viewBox.
const (
	barsShown   = 20
	barHeight   = 26
	barLeft     = 190
	barWidth    = 560
	weekWidth   = 58
	weekHeight  = 110
	weekMargins = 20
)

// bar is one department's line of the chart.
type bar struct {
	Name     string
	Row      *controlv1.CoverageRow
	Y, TextY int
	Percent  uint32
	Parts    []part
}

type part struct {
	State    string
	N        uint32
	X, Width float64
}

// chart is what the template draws.
type chart struct {
	Bars   []bar
	Height int
}

// bars takes the departments with the most that is not proved.
func bars(rows []*controlv1.CoverageRow) chart {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b *controlv1.CoverageRow) int {
		return cmp.Compare(b.GetWanted()-b.GetProved(), a.GetWanted()-a.GetProved())
	})
	rows = rows[:min(len(rows), barsShown)]
	c := chart{Height: max(len(rows), 1)*barHeight + 4}
	for i, r := range rows {
		b := bar{Name: cut(r.GetDepartment()), Row: r, Y: i*barHeight + 2, TextY: i*barHeight + 18, Percent: sheet.Percent(r)}
		x := float64(barLeft)
		for _, p := range []part{
			{State: "proved", N: r.GetProved()}, {State: "unproved", N: r.GetUnproved()}, {State: "waiting", N: r.GetWaiting()},
			{State: "refused", N: r.GetRefused()}, {State: "missing", N: r.GetMissing()},
		} {
			p.X, p.Width = x, barWidth*float64(p.N)/float64(max(r.GetWanted(), 1))
			x += p.Width
			if p.N > 0 {
				b.Parts = append(b.Parts, p)
			}
		}
		c.Bars = append(c.Bars, b)
	}
	return c
}

// maxName is what fits beside a bar; the table below has the whole name.
const maxName = 22

func cut(name string) string {
	if runes := []rune(name); len(runes) > maxName {
		return string(runes[:maxName-1]) + "…"
	}
	return name
}

// week is one column of the second chart.
type week struct {
	N                   uint32
	Number              int
	X, Center, Y, TextY int
	Height              int
}

func weekBars(counts []uint32) []week {
	most := uint32(1)
	for _, n := range counts {
		most = max(most, n)
	}
	out := make([]week, 0, len(counts))
	for i, n := range counts {
		height := int(n) * weekHeight / int(most)
		if n > 0 {
			height = max(height, 2)
		}
		x := i * weekWidth
		y := weekMargins + weekHeight - height
		out = append(out, week{N: n, Number: i + 1, X: x, Center: x + weekWidth/2 - 4, Y: y, TextY: y - 5, Height: height})
	}
	return out
}
