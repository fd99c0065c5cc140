package schedule

// Why a method was taken; recorded with the refresh.
const (
	BecauseUniqueIndex   = "unique_index"      // concurrently: there is an index for it
	BecauseNoUniqueIndex = "no_unique_index"   // plain: there is none
	BecauseNoTemp        = "no_temp_privilege" // plain: the owner may not create the temporary table that CONCURRENTLY needs
	BecauseFirstFill     = "first_fill"        // plain: CONCURRENTLY compares with contents, and there are none
	BecauseRequested     = "requested"         // the schedule, or the person, asks for it; columns have no other
	BecauseWhole         = "whole"             // merge: all rows
	BecauseWindow        = "window"            // merge: those in the window
)

// Choice is how a view is to be refreshed, and why.
type Choice struct {
	Method  Method
	Because string

	// Impossible is, when not nil, how this ends without being tried.
	Impossible *Ending
}

// Choose says how a view is to be refreshed of which the catalog says this. A view that was never filled can only be
// refreshed plain, whatever is asked for. Auto refreshes concurrently where PostgreSQL can: with a usable unique index,
// and an owner who may create the temporary table that CONCURRENTLY works with. Where concurrently is asked for and cannot
// be, that is known before anything is locked.
func (s Strategy) Choose(populated, uniqueIndex, ownerTemp bool) Choice {
	switch {
	case !populated:
		return Choice{Method: MethodPlain, Because: BecauseFirstFill}
	case s == Plain:
		return Choice{Method: MethodPlain, Because: BecauseRequested}
	case uniqueIndex && ownerTemp && s == Concurrently:
		return Choice{Method: MethodConcurrently, Because: BecauseRequested}
	case uniqueIndex && ownerTemp:
		return Choice{Method: MethodConcurrently, Because: BecauseUniqueIndex}
	case s == Concurrently && !uniqueIndex:
		return impossible("object_not_in_prerequisite_state", "the view has no unique index that CONCURRENTLY can use", "")
	case s == Concurrently:
		return impossible("insufficient_privilege",
			"the view's owner may not create temporary tables in this database, and CONCURRENTLY needs one", ReasonNoTemp)
	case !uniqueIndex:
		return Choice{Method: MethodPlain, Because: BecauseNoUniqueIndex}
	default:
		return Choice{Method: MethodPlain, Because: BecauseNoTemp}
	}
}

func impossible(name, message, reason string) Choice {
	return Choice{Method: MethodConcurrently, Because: BecauseRequested, Impossible: &Ending{
		Status: Failed, Reason: reason, Method: MethodConcurrently, MethodReason: BecauseRequested,
		ErrorName: name, ErrorMessage: message,
	}}
}

// Choice is how what was claimed is to be refreshed.
func (c Claim) Choice() Choice {
	return choose(c.Materialization, c.Whole, c.Strategy, c.Populated, c.UniqueIndex, c.OwnerTemp)
}

// choose: only a view has strategies.
func choose(of Materialization, whole bool, strategy Strategy, populated, uniqueIndex, ownerTemp bool) Choice {
	switch {
	case of == MaterializedColumns:
		return Choice{Method: MethodColumns, Because: BecauseRequested}
	case of == MergeTable && whole:
		return Choice{Method: MethodMerge, Because: BecauseWhole}
	case of == MergeTable:
		return Choice{Method: MethodMerge, Because: BecauseWindow}
	default:
		return strategy.Choose(populated, uniqueIndex, ownerTemp)
	}
}
