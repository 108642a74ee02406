"""How a distilled set is stored; parameterisations do not depend on networks."""
