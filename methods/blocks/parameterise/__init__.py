"""How a distilled set is stored. A parameterisation knows no network."""
