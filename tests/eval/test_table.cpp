// Tables as LaTeX, and cells without a number.
#include "lib/eval/latex.h"
#include "lib/eval/table.h"
#include "tests/catch.h"

namespace hax::test {

TEST_CASE("LaTeX escapes what would be a command") {
  CHECK(latex_text("a_b & 50 % of $5 #1 {x} ~ ^ \\") ==
        "a\\_b \\& 50 \\% of \\$5 \\#1 \\{x\\} \\textasciitilde{} \\textasciicircum{} \\textbackslash{}");
  CHECK(latex_text("1 \u00b1 2 \u00d7 3 < 4") == "1 $\\pm$ 2 $\\times$ 3 \\textless{} 4");
  CHECK(latex_text("\u00e9t\u00e9") == "\u00e9t\u00e9");
}

TEST_CASE("a LaTeX table has booktabs rules and numbers flush right") {
  Table table;
  table.caption = "50 %";
  table.columns = {"d_state", "value"};
  table.rows = {{std::string("a&b"), Number{1.234, 2}}, {std::string("c"), Cell()}};
  table.notes = {"note_1"};
  CHECK(table.render(TableFormat::latex) ==
        "\\begin{table}\n\\centering\n\\caption{50 \\%}\n\\begin{tabular}{lr}\n\\toprule\n"
        "d\\_state & value \\\\\n\\midrule\na\\&b & 1.23 \\\\\nc & - \\\\\n\\bottomrule\n\\end{tabular}\n"
        "\n\\smallskip\n{\\footnotesize note\\_1\\par}\n\\end{table}\n");
}

TEST_CASE("empty cells, shortest numbers and lists of numbers") {
  Table table;
  table.columns = {"lr", "all", "none"};
  table.rows = {{Number{3e-3, kShortest}, Numbers{{1.0 / 3.0, 2}, {2.0, 2}}, Cell()}};
  CHECK(table.render(TableFormat::text) ==
        "   lr  all        none\n-----  ---------  ----\n0.003  0.33 2.00     -\n");
  CHECK(table.render(TableFormat::csv) == "lr,all,none\n0.003,0.3333333333333333 2.0,\n");
  CHECK(
      table.render(TableFormat::json) ==
      "{\n  \"caption\": \"\",\n  \"rows\": [\n    {\n      \"lr\": 0.003,\n      \"all\": [\n        "
      "0.3333333333333333,\n        2.0\n      ],\n      \"none\": null\n    }\n  ],\n  \"notes\": []\n}\n");
  CHECK(text_of(Number{100000.0, kShortest}) == "1e+05");
  CHECK(text_of(Number{32.0, kShortest}) == "32");
}

TEST_CASE("a bar in Markdown does not end its cell") {
  Table table;
  table.columns = {"a"};
  table.rows = {{std::string("x|y")}};
  CHECK(table.render(TableFormat::markdown) == "| a    |\n| ---- |\n| x\\|y |\n");
}

TEST_CASE("formats by name") {
  CHECK(table_format("latex") == TableFormat::latex);
  CHECK(table_format("md") == TableFormat::markdown);
  CHECK_FALSE(table_format("yaml"));
}

}  // namespace hax::test
