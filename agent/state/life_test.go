package state

import (
	"fmt"

	"smime-agent/agent/enroll"
)

// lifeMode has the child take enrollments through their lives.
const lifeMode = "life"

var lifeOrder = []enroll.State{
	enroll.Wanted, enroll.Consented, enroll.Requested, enroll.Submitted, enroll.Issued, enroll.Installed, enroll.Prepared, enroll.Active, enroll.Kept,
}

// live saves what the service does for a policy, an enrollment and its renewal,
// twice, and says after each call what it acknowledged.
func live(d *DB) int {
	number := 0
	save := func(told enroll.Enrollment, es ...enroll.Enrollment) error {
		event := audit(enroll.Event{At: start, Code: enroll.EventSubmitted, Enrollment: told, Outcome: "success"})
		if err := d.Save(es, event); err != nil {
			return err
		}
		for _, e := range es {
			fmt.Println("saved", e.ID, e.State)
		}
		fmt.Println("told", event.ID)
		return nil
	}
	walk := func(replaces *enroll.Enrollment) (enroll.Enrollment, error) {
		e := sample(number)
		number++
		for _, e.State = range lifeOrder[:len(lifeOrder)-1] {
			es := []enroll.Enrollment{e}
			if replaces != nil && e.State == enroll.Active {
				old := *replaces
				old.State = enroll.Kept
				es = append(es, old)
			}
			if err := save(e, es...); err != nil {
				return e, err
			}
		}
		return e, nil
	}
	for round := range 2 {
		err := d.SavePolicy(enroll.Policy{Revision: fmt.Sprint(round), Anchors: [][]byte{make([]byte, 9000)}})
		fmt.Println("policy", round)
		if err == nil {
			err = d.SaveSync(Sync{Revision: fmt.Sprint(round)})
		}
		var first enroll.Enrollment
		if err == nil {
			first, err = walk(nil)
		}
		if err == nil {
			_, err = walk(&first)
		}
		pending, err2 := d.Pending(10)
		for _, p := range pending {
			fmt.Println("forgetting", p.ID)
			err2 = d.Forget(p.ID)
		}
		if err != nil || err2 != nil {
			fmt.Println("failed", err, err2)
			return 3
		}
	}
	return 0
}
