package pgtest

import (
	"fmt"
	"strings"
	"testing"
)

// A warehouse's base tables, and its layers of as many views each.
const (
	WarehouseTables = 11
	WarehouseViews  = 5 * WarehouseTables
)

// NewWarehouse returns a graph of views over tables in four schemas: view i < WarehouseTables reads WarehouseTable(i), the
// others two of the layers above, half of them through plain views, and most with a unique index. A row more in a table is
// seen in all views below it.
func NewWarehouse(tb testing.TB) *Lattice {
	tb.Helper()
	l := &Lattice{DB: *NewDB(tb), Parents: make([][]int, WarehouseViews)}
	schemas := []string{"stock", "sales", `"By Day"`}
	for _, schema := range append(schemas, "base") {
		l.Exec("create schema " + schema)
	}
	for i := range WarehouseViews {
		schema := schemas[i%len(schemas)]
		name := fmt.Sprintf("%s.v%02d", schema, (i*34)%WarehouseViews)
		l.Names = append(l.Names, name)
		reads := "(select count(*) from " + WarehouseTable(i) + ")"
		if i < WarehouseTables {
			l.Exec("create table " + WarehouseTable(i) + " as select 1 as id")
		} else {
			layer := i / WarehouseTables * WarehouseTables
			l.Parents[i] = []int{i - WarehouseTables, (i*7 + 3) % layer}
			if l.Parents[i][0] == l.Parents[i][1] {
				l.Parents[i] = l.Parents[i][:1]
			}
			var terms []string
			for _, p := range l.Parents[i] {
				terms = append(terms, "(select sum(n) from "+l.Names[p]+")")
			}
			reads = strings.Join(terms, " + ")
		}
		query := "select 1 as id, " + reads + " as n"
		if i%2 == 0 {
			l.Exec(fmt.Sprintf("create view base.inner%d as %s", i, query))
			l.Exec(fmt.Sprintf("create view %s.outer%d as select id, n from base.inner%d", schema, i, i))
			query = fmt.Sprintf("select id, n from %s.outer%d", schema, i)
		}
		l.Exec("create materialized view " + name + " as " + query)
		if i%5 > 0 {
			l.Exec("create unique index on " + name + " (id)")
		}
	}
	return l
}

// WarehouseTable is the name of a base table.
func WarehouseTable(i int) string { return fmt.Sprintf("base.t%d", i) }
